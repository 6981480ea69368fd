"""The data card that `worldloom inspect` prints: figures taken in one pass, drawn as text, page and picture."""

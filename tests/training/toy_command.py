"""`python -m tests.training.toy_command train toy ...`: the command line with the toy family registered."""

from tests.toy import ENTRY
from worldloom.cli import main
from worldloom.models import FAMILIES

if __name__ == "__main__":
    FAMILIES.entries["toy"] = ENTRY
    main()

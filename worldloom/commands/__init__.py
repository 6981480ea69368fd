"""The `worldloom` command, one file a subcommand: a settings class, whose fields are the flags, and a thin function."""

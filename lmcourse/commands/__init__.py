"""The subcommands of `lmcourse`, one module each."""

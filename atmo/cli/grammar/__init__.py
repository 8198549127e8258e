"""The grammar of the command line: which commands and options there are. What they do stands in `atmo.cli.*_commands`,
which are imported when a command runs: `--help` must answer at once."""

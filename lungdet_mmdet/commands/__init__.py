"""What the command ``lungdet`` does, one module for each subcommand: parse, call, print."""

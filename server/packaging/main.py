"""Where a host starts the bundle; everything else comes from the installed package."""

from tissuetalk.server.commands.command_line import main

if __name__ == "__main__":
    main()

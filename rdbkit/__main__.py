from rdbkit.cli import main

main()

"""The interfaces of other tools, so that programs written for them read every RDB version."""

"""What may be lost and changed on the way, and the list of what was."""

"""Live servers: the only room that talks to one, by the package redis, which is imported when a connection is asked for."""

"""The suite's own plug-ins and helpers: how long a test may take, what a run tells, how one waits, what is undone."""

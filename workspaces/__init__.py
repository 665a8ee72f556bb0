"""The app. Glossary, in the field's standard terms:

workspace   one user's private VS Code: a row here, a container in the runtime, files on the host
runtime     what runs containers (Docker today); the seam is `runtimes/base.py`
phase       what the runtime says of a container: absent, created, running, paused, exited, removing
state       what we know of a workspace: stopped, starting, running, stopping, failed (`states.py`)
wanted      what the user asked for last: running or stopped; passes make `state` follow
generation  counts requested starts; every continuation carries it, an old one does nothing
observation what the runtime answered about one container, at one moment
sweep       one question about rows, one bounded batch, each row on its own (`sweeps.py`)
reconcile   the sweep that compares rows with containers, from both sides
gate        decides for nginx who may reach which editor, and where it is (`gate.py`)
ticket      the opaque cookie that opens one user's editor and nothing else (`ticket.py`)
place       where somebody logs in: a device that the account knows, or an address (`lockout.py`)
lock-out    how many wrong passwords an account bears from a place, and from strangers' places together
clock       a time at which a signal was last seen: presence, work, connection (`idleness.py`)
presence    a person: keys, pointer, cursor, terminal input, a visit to the editor's page
work        a foreground command in a terminal, or a busy processor; bounded by a budget without presence
report      what a workspace says of itself, read over the editor's port (`runtimes/report.py`)
notice      what a workspace is told of itself, in a folder that it can only read (`notices.py`)
decision    why a workspace was stopped, warned, held or spared, with the clocks that were seen (`decisions.py`)
pause       a window of time in which nothing is stopped for idleness: a class, an exam (`timetable.py`)
"""

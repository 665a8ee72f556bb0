"""Works out passwords' hashes for web, apart from it: a process with no network, no database and no secrets.

Standard library only, so that it starts at once and holds little memory.
"""

from __future__ import annotations

#: Where it listens, and web asks. A health check that imports nothing of ours has it, too.
SOCKET = "/run/gunpowder/hasher/hasher.sock"

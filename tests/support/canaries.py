"""Values that stand for secrets, and are looked for everywhere afterwards."""

from __future__ import annotations

# Whoever may reach the cluster has the token; the other two are what the job's store asks for.
CANARIES = {name: f"canary-{name.lower()}-5f0c" for name in ("TOKEN", "KEY_ID", "ACCESS")}

"""An output that an older version began: it goes on by the rules of that version, so that its parts have one schema.

Owns which rules those were, and when they count; refuses to know how a plan is made. The invariant: what the job says
of an output by name means the same under all rules.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from connectors.output.look.tenant import others_begun, tenant
from connectors.store.store import Store
from jobs.errors import RunnerError
from jobs.section.output import Output
from runner.binding.binding import Binding
from runner.binding.fetching import Rules
from runner.tensor import type_text


def rules_of(output: Output) -> Rules:
    """What a job means today."""
    return Rules(text=output.writes_text)


def ruled(binding: Binding) -> bool:
    """Whether rules may have decided what a column is."""
    return any(target.document()["decoded"] or getattr(target, "single", False) for target in binding.outputs)


def older_rules(output: Output, binding: Binding, plan_id: str, planned: Callable[[Rules], str]) -> Rules | None:
    """The rules by which an older version began what the output holds; None where it is nothing of that kind.

    binding, plan_id: by today's rules. planned: the id of the plan of the same job and files by others.
    cost: none where the rules decide no column; else a listing of the output, and a second plan if another is there.
    """
    if not ruled(binding):
        return None
    rules = Rules(text=output.strings == "text", single=False)
    # Whoever writes into an output that cannot be looked at says so; what an older version refused it did not begin.
    with suppress(RunnerError):
        store = Store(output.url, output.options)
        if others_begun(store, plan_id) and plan_id != (older := planned(rules)):
            return rules if tenant(store, [plan_id, older]) == older else None
    return None


def story(then: Binding, now: Binding) -> str:
    """A sentence for people. then, now: by the rules of the older version, and by today's."""
    new = {target.name: target.field.type for target in now.outputs}
    changed = [
        f"{target.field.name!r} is {type_text(target.field.type)} ({type_text(new[target.name])} in a new output)"
        for target in then.outputs
        if target.field.type != new[target.name]
    ]
    more = f", and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    return (
        "an older version began this output, and it goes on by the rules of that version:"
        f" {', '.join(changed[:_SHOWN])}{more}; --overwrite begins anew, by today's"
    )


_SHOWN = 5  # columns

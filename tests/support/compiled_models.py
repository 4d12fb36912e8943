"""SavedModels that are compiled: loops and conditions, values that decide a shape, look-ups, and ops that refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write(tf: Any, root: Path) -> None:
    """Write `root`/flow. tf: the package."""

    class Flow(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lstm = tf.keras.layers.LSTM(3)
            self.lstm.build((None, 4, 1))
            self.weights = [weight.value for weight in self.lstm.weights]

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        def flow(self, x: Any) -> Any:
            """What TensorFlow lowers to ops that XLA does not know, unless it is told not to."""
            tf.debugging.assert_less(x, 1000.0)
            return {
                "condition": tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2, lambda: x * 3),
                "loop": tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * 2), [0, x])[1],
                "mapped": tf.map_fn(lambda row: row * tf.reduce_sum(row), x),
                "case": tf.switch_case(tf.constant(1) + tf.cast(x[0, 0], tf.int32), [lambda: x, lambda: x * 10]),
                "lstm": self.lstm(x[:, :, None]),
            }

    flow = Flow()
    tf.saved_model.save(flow, str(root / "flow"), signatures={"flow": flow.flow})

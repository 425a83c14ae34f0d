"""The deliberate differences, each by how its row in docs/predictions.md begins: what Cog does.

Cases name them (`case.Differs`); which of them no case can show, and why, stands here too.
"""

from __future__ import annotations

# What is read.
FIRST_LINE = (
    "reads the first line of `Accept` and `Prefer` only, and compares case-sensitively, `Prefer` as"
    " a whole"
)
NO_STREAM = "406 for a stream if the model was built without streaming, or is not there yet"
ANY_ID = "takes any id, also `../x`"
NO_TYPE = "ignores a body without `Content-Type`, and runs an empty input"
PLAIN_TEXT = "a member beside `input` of the wrong type is a 422 in plain text"
FILTER_400 = "an entry of `webhook_events_filter` that is no text is a 400"
DUPLICATES = "duplicate members are a 422"
CONTEXT = "`context` has to map texts to texts"
ANY_WEBHOOK = "takes any text as `webhook`, and tries in vain"
ANY_ADDRESS = "sends webhooks anywhere"
RUST = "what is wrong with JSON is told in the words of a Rust parser"
TOO_LARGE = "413 in plain text, over 100 MiB"
# The input.
STRIPS = "strips members that the model does not name"
ONE_SCHEMA = "has one schema per model"
WHOLE_VALUE = "quotes a wrong value as a whole, and tells all that is wrong"
TWO_TYPES = "of a member with two types: *is not valid under any of the schemas*"
# What is answered.
EVENT_IDS = "events have no `id`"
NOT_KEPT = "answers in JSON have no `Cache-Control`"
MADE_IDS = "ids that it makes are `pred_` and the time"
INPUT_IN_SNAPSHOT = "what a `PUT` of a running prediction is answered has its `input`"
FORGETS = "forgets a prediction when it has ended: its id makes a new one"
NO_GET = "there is no `GET /predictions/:id`"
LOSES_THE_FIRST = "`POST` with the id of a running prediction runs a second one and loses the first"
NO_RETRY_AFTER = "409 without `Retry-After`"
NO_QUEUE = "409 as soon as all slots are taken"
EXCEPTION = "`error` names an exception of the model"
CRASHED = "after a crash of the worker the health is `UNHEALTHY` and every request a 409, for ever"
LAG = "a subscriber may lag by 1024 events, whatever is kept"
LAGGED_HAS_LEFT = "who lags has left: a stream that nobody else follows is canceled"
# Webhooks.
DISORDER = "sends webhooks as they come, each by itself: `completed` may be before the last output"
EACH_PIECE = "sends one for each piece of output, and loses logs within 500 ms"
USER_AGENT = "`User-Agent: coglet/0.23.1` in webhooks"
# The server.
BUILD = "`version` in `/health-check` has `git_sha`, `build_time` and `python_sdk`"
NANOSECONDS = "times have nanoseconds"
SCHEMA = "`/openapi.json` has `POST /predictions` and cancel"
ROOT = "`GET /` lists the routes"
UNKNOWN_PATH = "404 without a body for a path that it does not know"
TRAININGS = "`/trainings` is another name of `/predictions`"
SHUTDOWN = "`POST /shutdown` ends the server"
NO_METHOD = "405 with `Allow` and without a body for another method"

NOT_PLAYED = {
    ONE_SCHEMA: "the oracle's model is given the inputs that ours has",
    NO_QUEUE: "both sides are started without a queue, to be alike",
    LAG: "how far a subscriber is behind depends on buffers in the kernel",
    LAGGED_HAS_LEFT: "Cog cancels some time later, and does not say when",
    DISORDER: "it is a race there",
    EACH_PIECE: "how many requests there are depends on how long each takes",
    NANOSECONDS: "Cog leaves zeros at the end out",
    SHUTDOWN: "it would end the oracle",
}

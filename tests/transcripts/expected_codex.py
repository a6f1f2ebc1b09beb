"""What each recorded transcript of codex's app-server means, in order: a word and the text of every turn in it.

Worked out from the raw events; where our translator decides otherwise than the CLI, a comment says so.

A *turn* is what a thread tells from a `turn/start`, or from the results of tools that were given, up to its end; the
ones of 0.169.0 were recorded without `experimentalRawEvents`, so there nothing tells of a call of a tool but the
request for its result, and the turn goes on behind it. A word is the stop reason, `error:KIND`, or `cut` where the
recording ends before the turn does.
"""

EXPECTED = {
    "0.169.0": {
        "dyntool": [("end_turn", "Hello from the stand-in model.")],
        "dyntool-interrupt": [("error:cancelled", "")],
        "e429": [("error:rate_limited", "")],
        "e500": [("error:vendor_error", "")],
        "emoji": [("end_turn", "Hi \U0001f600 caf\u00e9 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u4f60\u597d end")],
        "garbage": [],
        "info": [],
        "inj": [("end_turn", "Hello from the stand-in model.")],
        "interrupt": [
            ("cancelled", "tok0 tok1 tok2 tok3 tok4 tok5 "),
            ("cut", "tok0 tok1 tok2 tok3 tok4 tok5 tok6 tok7 tok8 "),
            ("cut", "tok0 tok1 tok2 tok3 tok4 "),
        ],
        "sigterm": [("cut", "tok0 tok1 tok2 tok3 ")],
        "toolnoenv": [("end_turn", "Hello from the stand-in model.")],
    },
    "0.171.0": {
        # The CLI tries again behind an answer that has begun: ours ends there.
        "broken": [("error:network", "Hel")],
        "e400": [("error:invalid_request", "")],
        "e403": [("end_turn", "ok")],
        "e404": [("end_turn", "ok")],
        "empty": [("end_turn", "")],
        # The CLI calls it an error and tries again.
        "filtered": [("content_filter", "ab")],
        "interrupted": [("cancelled", "first")],
        "interrupted-early": [("error:cancelled", "")],
        # The CLI calls it an error.
        "length": [("length", "ab")],
        "raw-reasoning": [("end_turn", "hey")],
        "reasoning": [("end_turn", "Hello")],
        "retried": [("error:rate_limited", "")],
        "retried-in-vain": [("error:vendor_error", "")],
        "several-messages": [("end_turn", "one two")],
        "stream-context-length-exceeded": [("error:context_overflow", "")],
        # A refusal is an answer.
        "stream-cyber-policy": [("content_filter", "")],
        "stream-insufficient-quota": [("error:quota_exhausted", "")],
        "stream-model-not-found": [("error:model_not_found", "")],
        "stream-rate-limit": [("end_turn", "good")],
        "tools": [("tool_calls", "look"), ("end_turn", "18 degrees")],
        # The CLI answers a call that it cannot hand on by itself and has the model go on: ours ends before.
        "tools-bad-arguments": [("tool_calls", ""), ("end_turn", "again")],
        "tools-interrupted": [("tool_calls", "")],
        "tools-unknown": [("tool_calls", "")],
    },
}
REASONING = {"reasoning": "First. \n\nSecond.", "raw-reasoning": "raw think"}
RETRIES = {
    "retried": [(1, 2, "vendor_error")],
    "retried-in-vain": [(1, 2, "vendor_error"), (2, 2, "vendor_error")],
    "stream-rate-limit": [(1, 2, "rate_limited")],
    "e403": [(1, 2, "permission")],
    "e404": [(1, 2, "model_not_found")],
}
CALLS = {
    "tools": [("get_weather", {"city": "Paris"}, None), ("get_weather", {"city": "Rome"}, None)],
    "tools-bad-arguments": [("get_weather", {}, '{"city": "Par'), ("get_weather", {"city": "Rome"}, None)],
    "tools-interrupted": [("get_weather", {"city": "Paris"}, None)],
    "tools-unknown": [("nope", {}, None)],
}

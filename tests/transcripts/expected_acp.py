"""What each recorded transcript of gemini 0.61.0 and opencode 1.18.33 on ACP means: a word for every turn, in order.

A *turn* is what a session tells from a `session/prompt` up to its answer. A word is the stop reason, `error:KIND`, or
`cut` where the recording ends before the turn does.
"""

EXPECTED = {
    "gemini": {
        "acp-drop": "error:network",
        "acp-e401": "error:auth_expired",
        # The CLI was trying again, which it tells nobody.
        "acp-e500": "cut",
        "acp-emoji": "end_turn",
        "acp-reasoning": "end_turn",
        # The first two are commands that the CLI served by itself: no answer of a model's, and for us a failure.
        "acp-slash": "error:vendor_error error:vendor_error end_turn end_turn end_turn",
        "acp-tool": "end_turn",
    },
    "opencode": {
        "acp-cancel": "cancelled cut",
        "acp-e401": "error:auth_expired",
        "acp-e429": "error:rate_limited",
        "acp-e500": "cut",
        "acp-emoji": "end_turn",
        "acp-reasoning": "end_turn",
        "acp-slash": "end_turn end_turn",
        "acp-slash2": "end_turn end_turn end_turn",
        "acp-tool": "end_turn",
    },
}

TEXTS = {
    ("gemini", "acp-drop", 0): "Hello from the",
    ("gemini", "acp-emoji", 0): "Hi \U0001f600 caf\u00e9 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u4f60\u597d end",
    ("gemini", "acp-reasoning", 0): "Hello from the stand-in model.",
    ("gemini", "acp-tool", 0): "Hello from the stand-in model.",
    ("opencode", "acp-cancel", 0): "tok0 tok1 tok2 tok3 tok4 tok5 ",
    ("opencode", "acp-emoji", 0): "Hi \U0001f600 caf\u00e9 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u4f60\u597d end",
    ("opencode", "acp-reasoning", 0): "Hello from the stand-in model.",
    # A command that nobody knows: no model was asked.
    ("opencode", "acp-slash2", 1): "",
}

REASONING = {
    ("gemini", "acp-reasoning", 0): "**Thinking**\naboutit.",
    ("opencode", "acp-reasoning", 0): "Thinking about it.",
}

USAGE = {
    ("gemini", "acp-emoji", 0): (111, 22),
    # Two calls of the model, the second with the result of the tool.
    ("gemini", "acp-tool", 0): (222, 44),
    ("opencode", "acp-emoji", 0): (111, 22),
    ("opencode", "acp-tool", 0): (111, 22),
}

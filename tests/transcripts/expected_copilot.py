"""What each recorded transcript of copilot 1.0.102 means: a word for every turn in it, in order.

Worked out from the raw events by somebody who had not seen a translator; where our translator decides otherwise than
the CLI, a comment says so.

A *turn* is, headless, what the session tells from an accepted `session.send` or `session.sendMessages` (one with a
result, not a JSON-RPC error) up to the next `session.idle` of the same sessionId; turns stand in the order of their
requests. `session.getMessages` repeats old events inside its result: those are no turn. One-shot, the whole file is
one turn. What has no line here has no event of either transport: ACP and text mode.

A word is the stop reason, `error:KIND`, or `cut` where the recording ends before the turn does. Judgements that could
be otherwise:
- err-json-e503: `overloaded`, for its code is `overloaded` and its text "503 Overloaded."; a bare 503 would be
  `vendor_error`.
- err-json-errmid: `vendor_error`: no status, failureKind `api`, type `server_error`. err-json-drop and -eof:
  failureKind `transport`.
- filter-json: only the scenario's name tells of a content filter; nothing on the one-shot stdout does: `end_turn`.
"""

EXPECTED = {
    "emoji-json": "end_turn",
    # The CLI calls an answer without text an error and exits with 1: an empty answer is an answer.
    "empty-json": "end_turn",
    "err-json-ctx": "error:context_overflow",
    "err-json-drop": "error:network",
    "err-json-e400": "error:invalid_request",
    "err-json-e401": "error:auth_expired",
    "err-json-e429": "error:rate_limited",
    "err-json-e429n": "error:rate_limited",
    "err-json-e500": "error:vendor_error",
    "err-json-e503": "error:overloaded",
    "err-json-eof": "error:network",
    "err-json-errmid": "error:vendor_error",
    "f-all": "end_turn",
    "f-available-none": "end_turn",
    "filter-json": "end_turn",
    # A turn of ours ends where the CLI goes to run a tool; its second call of the model is none of ours.
    "headless-basic": (
        "end_turn end_turn cancelled end_turn end_turn tool_calls tool_calls "
        "end_turn end_turn end_turn end_turn end_turn"
    ),
    "headless-byok-env": "error:not_authenticated",
    "headless-noauth-send2": "error:not_authenticated end_turn end_turn end_turn",
    "headless-offline-provider": "end_turn",
    "headless-stop-eof": "cut",
    "headless-stop-term": "cut",
    "headless-three-tools": "tool_calls",
    "headless-tool": "tool_calls",
    "headless-tool-invalid": "tool_calls",
    "instr-off": "end_turn",
    "json-plain": "end_turn",
    # The CLI has the model go on, and calls the whole `end_turn`: our turn ends at its first call.
    "length-json": "length",
    "no-offline-env": "end_turn",
    "no-offline-env-default": "end_turn",
    "reason-json": "end_turn",
    "reason2-json": "end_turn",
    "session-id-1": "end_turn",
    "session-id-2": "end_turn",
    # Stopped from outside: `assistant.idle{aborted:true}`, sometimes even with exit code 0. Before `start` an error.
    "sig-json-sighup": "cancelled",
    "sig-json-sigkill-tool": "cut",
    "sig-json-sigterm": "cancelled",
    "sig-json-sigterm-hang": "error:cancelled",
    "sig-json-sigterm-retry": "error:cancelled",
    "sig-json-sigterm-tool": "error:cancelled",
    "stdin-only-json": "end_turn",
    "stdin-plus-p": "end_turn",
    "stream-on-json": "end_turn",
    "tool-bash-allowed-json": "end_turn",
    "tool-bash-denied-json": "end_turn",
    "tool-unknown-json": "end_turn",
    "tool-view-json": "end_turn",
    "wire-anthropic": "end_turn",
    "wire-responses": "end_turn",
}

# The exact text of each turn, in the order of its words; of one that failed or was cut what had been said till then.
# One-shot the text comes with the whole message alone, so there what broke off has none.
TEXTS = {
    "emoji-json": [
        'h\u00e9llo \U0001f389\U0001f468\u200d\U0001f469\u200d\U0001f467 \u6f22\u5b57 \u2028 end "q" \\ \n\ttab'
    ],
    "empty-json": [""],
    "err-json-ctx": [""],
    "err-json-drop": [""],
    "err-json-e400": [""],
    "err-json-e401": [""],
    "err-json-e429": [""],
    "err-json-e429n": [""],
    "err-json-e500": [""],
    "err-json-e503": [""],
    "err-json-eof": [""],
    "err-json-errmid": [""],
    "f-all": ["w0 w1 w2 "],
    "f-available-none": ["w0 w1 w2 "],
    "filter-json": ["w0 w1 w2 w3 w4 "],
    "headless-basic": [
        "w0 w1 w2 ",
        "answer0 answer1 ",
        "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 ",
        "w0 ",
        "w0 ",  # of the model fake-two
        "",  # asks for lookup{"q": "abc"}
        "",  # the same, with a permission.requested before it
        "w0 ",
        "w0 ",
        "w0 ",
        "w0 ",
        "whole answer",  # streaming: false, so there is no delta at all
    ],
    "headless-byok-env": [""],
    "headless-noauth-send2": ["", "w0 w1 w2 w3 w4 ", "w0 ", "w0 "],
    "headless-offline-provider": ["w0 w1 "],
    "headless-stop-eof": ["w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 "],
    "headless-stop-term": ["w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13 "],
    "headless-three-tools": ["Let me look."],
    "headless-tool": [""],
    "headless-tool-invalid": [""],
    "instr-off": ["w0 "],
    "json-plain": ["w0 w1 w2 w3 w4 "],
    "length-json": ["w0 w1 w2 w3 w4 "],
    "no-offline-env": ["w0 "],
    "no-offline-env-default": ["w0 "],
    "reason-json": ["answer0 answer1 answer2 "],
    "reason2-json": ["answer0 answer1 answer2 "],
    "session-id-1": ["w0 "],
    "session-id-2": ["w0 "],
    "sig-json-sighup": [""],
    "sig-json-sigkill-tool": [""],
    "sig-json-sigterm": [""],
    "sig-json-sigterm-hang": [""],
    "sig-json-sigterm-retry": [""],
    "sig-json-sigterm-tool": [""],
    "stdin-only-json": ["w0 w1 w2 "],
    "stdin-plus-p": ["w0 w1 "],
    "stream-on-json": ["w0 w1 w2 "],
    "tool-bash-allowed-json": ["tool done: hi\n<shellId: 0 completed with exit code 0>"],
    "tool-bash-denied-json": [
        "tool done: Permission denied because no interactive user response was available. Retry in an interactive "
        "session so the user can approve it, or try an alternative that does not require this permission."
    ],
    "tool-unknown-json": ["tool done: Tool 'nope' does not exist. Available tools that can be called are ."],
    "tool-view-json": ["tool done: None"],
    "wire-anthropic": ["w0 w1 "],
    "wire-responses": ["w0 w1 "],
}

# The reasoning of each turn that has some, by its place. `assistant.reasoning.content` and the message's
# `reasoningText` are the same without the white space at the end.
REASONING = {
    "headless-basic": {1: "think0 think1 "},
    "headless-three-tools": {0: "hmm"},
    "reason-json": {0: "think0 think1 think2 "},
    "reason2-json": {0: "think0 think1 think2 "},
}

# (input, output, cached input, reasoning) tokens of each turn, from its first `assistant.usage`; None where there is
# none. One-shot never tells them. The input counts the cached tokens already (prompt_tokens 123, of them cached_tokens
# 100).
_CALL = (123, 45, 100, 7)
USAGE: dict[str, list[tuple[int, int, int, int | None] | None]] = {
    "headless-basic": [
        _CALL,
        _CALL,
        None,  # aborted: the call reported nothing
        *[_CALL] * 8,
        (123, 45, 0, None),  # streaming: false: reasoningTokens is missing, cacheDetailsReported is false
    ],
    "headless-byok-env": [None],
    "headless-noauth-send2": [None, _CALL, _CALL, _CALL],
    "headless-offline-provider": [_CALL],
    "headless-stop-eof": [None],
    "headless-stop-term": [None],
    "headless-three-tools": [(11, 7, 0, None)],
    "headless-tool": [(11, 7, 0, None)],
    "headless-tool-invalid": [(11, 7, 0, None)],
}

# Where the CLI tried again before the answer began: its failed calls, each a `retrying` chunk, and their kind. The last
# one of a turn that failed is followed by no other, which is not known when it is told.
RETRIES = {
    "err-json-e401": (3, "auth_expired"),
    "err-json-e429": (6, "rate_limited"),
    "err-json-e429n": (6, "rate_limited"),
    "err-json-e500": (6, "vendor_error"),
    "err-json-e503": (6, "overloaded"),
    "sig-json-sigterm-retry": (1, "rate_limited"),
}

# (requested, max) tokens, from the message.
CONTEXT = {"err-json-ctx": (9000, 8192)}

# Every attempt at one answer, (messageId, text), in order: none was ever completed by an `assistant.message`, and the
# turn failed. Ours ends at the failure of the first, so no text may come twice.
ATTEMPTS: dict[str, list[tuple[str, str]]] = {
    "err-json-drop": [
        ("87f6fc18-739e-47ef-a618-750a9eb4caf2", "w0 w1 w2 "),
        ("97cb9e14-59ab-44dd-a7b3-0dcfc0291c41", "w0 w1 w2 "),
        ("a79b5b55-dd58-4a9d-a3b8-6b9dbcb7d580", "w0 w1 w2 "),
        ("a7185961-5648-4f1d-aa38-ec33f7b68c21", "w0 w1 w2 "),
        ("67f7b29f-3077-484e-94a1-3c64fbd140f8", "w0 w1 w2 "),
        ("4940644a-313a-4ddf-bd3b-937c5669c021", "w0 w1 w2 "),
    ],
    "err-json-eof": [
        ("c03c6a43-f5ff-4e3d-90bf-ec3926a7fb6e", "w0 w1 w2 "),
        ("22b62733-0d88-4dba-a243-26af920b3697", "w0 w1 w2 "),
        ("b9a218f8-33ee-4886-9672-3e57185b8434", "w0 w1 w2 "),
        ("d78127b5-57ee-4532-b88d-0d1c312dc31a", "w0 w1 w2 "),
        ("ac55f5d1-6ec1-4a57-b1e8-e180338d52fb", "w0 w1 w2 "),
        ("ae8bdfa1-fc48-4e41-8281-8f5373c07246", "w0 w1 w2 "),
    ],
    "err-json-errmid": [
        ("18588c5c-1c05-490a-ba5e-8279893e5c0b", "w0 w1 w2 "),
        ("0d72defd-fb85-49b9-93cd-ce7c38d7ec67", "w0 w1 w2 "),
        ("a5b32955-c79d-493f-9f2f-09641a606b1e", "w0 w1 w2 "),
        ("2a6b3248-2557-4cb3-b623-07115cc7a2b2", "w0 w1 w2 "),
        ("a6fcb221-7ae4-4f51-911c-c67e0b5e8f85", "w0 w1 w2 "),
        ("950165ec-1a98-4a33-a9d9-437ea924793a", "w0 w1 w2 "),
    ],
}

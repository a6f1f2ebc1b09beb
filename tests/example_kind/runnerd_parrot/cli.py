"""The parrot itself: reads a prompt from stdin, and says its last part in words, one JSON object a line."""

import itertools
import json
import re
import sys
import uuid

FOR_EVER = "for ever"


def emit(**event: object) -> None:
    print(json.dumps(event), flush=True)


def main() -> None:
    if sys.argv[1:] == ["--version"]:
        print("1.0.0")
        return
    prompt = sys.stdin.buffer.read().decode()
    text = prompt.rpartition("</conversation_so_far>\n\n")[2].rpartition("</instructions>\n\n")[2]
    words = re.findall(r"\s*\S+|\s+$", text)
    emit(type="hello", id=f"parrot-{uuid.uuid4().hex}")
    rounds = itertools.repeat(0) if text == FOR_EVER else range(int(sys.argv[1]))
    said = 0
    for _ in rounds:
        for word in words:
            emit(type="word", word=word)
            said += 1
    emit(type="bye", heard=len(prompt.split()), said=said)


if __name__ == "__main__":
    main()

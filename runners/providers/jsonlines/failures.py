"""What a declared CLI's errors are: by its words, an HTTP status or its exit code. Pure."""

from runners.errors import TOLD_BY_CLIS, RunnerError, of_status
from runners.providers.jsonlines.settings import ByKind, JsonLinesSettings


def kind_by_words(message: str, words: ByKind[str]) -> str | None:
    """The first kind of which a word stands in the message, in any case."""
    said = message.lower()
    return next((kind for kind, known in words.items() if any(word.lower() in said for word in known)), None)


def kind_by_status(status: int | None) -> str | None:
    """The kind that an HTTP status means, where it means an error."""
    if status is None or status < 400:
        return None
    return of_status(status).kind


def kind_by_exit_code(code: int | None, settings: JsonLinesSettings) -> str | None:
    """The kind under which it stands in `exit_codes`."""
    return next((kind for kind, codes in settings.exit_codes.items() if code in codes), None)


def failure(kind: str, message: str, settings: JsonLinesSettings) -> RunnerError:
    """The error of that kind; what is about the login says how its user logs in."""
    is_login = kind in ("not_authenticated", "auth_expired")
    hint = settings.login.hint if is_login and settings.login is not None else None
    return TOLD_BY_CLIS[kind](message, hint=hint)

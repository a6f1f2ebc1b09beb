"""What a client has sent, held against the shape that it should have: every wrong field is named by its path."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from runners.errors import InvalidRequestError
from runners.messages import ChatMessage, ImagePart
from runners.tools import ToolDefinition

_UNSUPPORTED = "unsupported_value"
_PROBLEMS_TOLD = 10
_MOVED = "no CLI takes a system message between others: it is told as the user's"
_CODES = {
    "missing": "missing_required_parameter",
    "union_tag_not_found": "missing_required_parameter",
    _UNSUPPORTED: _UNSUPPORTED,
}

Model = TypeVar("Model", bound=BaseModel)


class Sent(BaseModel):
    """Strict in its types. A field that is not known is left alone, as the vendors' APIs do."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


@dataclass(frozen=True)
class Problem:
    """A wrong field, by its path as its sender wrote it. `code` is OpenAI's word for what is wrong."""

    path: str
    message: str
    code: str


class WrongFieldsError(InvalidRequestError):
    """The message names the first of `problems`."""

    def __init__(self, problems: list[Problem]) -> None:
        first = problems[0]
        super().__init__(f"{first.path}: {first.message}" if first.path else first.message)
        self.problems = problems

    def to_dict(self) -> dict[str, Any]:
        """As every RunnerError, with all problems."""
        return super().to_dict() | {"problems": [asdict(problem) for problem in self.problems]}


def checked(model: type[Model], value: Any) -> Model:
    """`value` as the model; WrongFieldsError when it is none."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise WrongFieldsError([_problem(value, detail) for detail in error.errors()[:_PROBLEMS_TOLD]]) from error


def text_or_list(value: Any) -> str:
    """For the Discriminator of what is a text (`<text>`) or a list (`<list>`): an error is then of the one it is."""
    return "<list>" if isinstance(value, list) else "<text>"


def word_or_named(value: Any) -> str:
    """For that of a choice of tools, which is a word (`<word>`) or names one (`<named>`)."""
    return "<word>" if isinstance(value, str) else "<named>"


def in_place(messages: Iterable[ChatMessage], warnings: list[str]) -> Iterator[ChatMessage]:
    """The messages; a system message behind others stays where it stands, as one of the user's, and a warning says so.

    A CLI has one system prompt for all of a conversation: what came to it later would make another of it each time.
    """
    has_begun = False
    for message in messages:
        has_begun = has_begun or message.role != "system"
        if has_begun and message.role == "system":
            if _MOVED not in warnings:
                warnings.append(_MOVED)
            yield message.model_copy(update={"role": "user"})
        else:
            yield message


def only(*neutral: Any) -> AfterValidator:
    """For a field of which no runner has anything: besides null it may have these values, which ask for nothing."""

    def refuse(value: Any) -> Any:
        if value is None or value in neutral:
            return value
        raise PydanticCustomError(_UNSUPPORTED, "Unsupported value: no CLI can do this")

    return AfterValidator(refuse)


def image_part(media_type: str, data: str) -> ImagePart:
    """An image; for use in a validator, so a plain ValueError when it is none."""
    try:
        return ImagePart.model_validate({"media_type": media_type, "data": data})
    except ValidationError as error:
        raise ValueError(_message(error.errors()[0])) from error


def _of_an_object(schema: dict[str, Any]) -> dict[str, Any]:
    try:
        return ToolDefinition(name="of any", parameters=schema).parameters
    except ValidationError as error:
        raise ValueError(_message(error.errors()[0])) from error


Parameters = Annotated[dict[str, Any], AfterValidator(_of_an_object)]
"""The JSON Schema of a tool's arguments, which are an object."""


def _problem(value: Any, detail: Any) -> Problem:
    location = detail["loc"]
    if detail["type"].startswith("union_tag"):
        # By a function of ours (`name()`) unions are told apart by their type; else it is said by which field.
        told_by = detail["ctx"]["discriminator"].strip("'")
        location = (*location, "type" if told_by.endswith("()") else told_by)
    return Problem(_field_path(value, location), _message(detail), _code(detail["type"]))


def _code(kind: str) -> str:
    return _CODES.get(kind) or ("invalid_type" if kind.endswith("_type") else "invalid_value")


def _message(detail: Any) -> str:
    # pydantic's own words for these tell of functions of ours.
    if detail["type"] == "union_tag_invalid":
        return f"{detail['ctx']['tag']!r} is none of {detail['ctx']['expected_tags']}"
    if detail["type"] == "union_tag_not_found":
        return "Field required"
    if detail["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "Input should be an object"
    return str(detail["msg"]).removeprefix("Value error, ")


def _field_path(value: Any, location: tuple[int | str, ...]) -> str:
    """The path of a field as its sender wrote it: pydantic's location less the names of union branches."""
    path = ""
    named = [step for step in location if not str(step).startswith("<")]
    for position, step in enumerate(named):
        is_last = position == len(named) - 1
        if isinstance(value, list) and isinstance(step, int):
            path += f"[{step}]"
            value = value[step] if step < len(value) else None
        elif isinstance(value, dict) and (
            is_last or (step in value and not _is_branch(value, step, named[position + 1]))
        ):
            path += f".{step}"
            value = value.get(step)
    return path.lstrip(".")


def _is_branch(value: dict[str, Any], step: int | str, following: int | str) -> bool:
    """Whether a step is the name of a union's branch, and no field of that name: the next one is a field beside it."""
    return step == value.get("type") and following in value

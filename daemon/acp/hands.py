"""The hands that an editor lends to a model: files read and written by the editor, as client tools of the chat.

Owns which tools there are, what the editor shows of a call, and what needs its user's leave: every write, and a read
outside the session's directory. Knows no daemon.
"""

import os
from typing import Any

from acp import Client, RequestError, text_block, tool_content, tool_diff_content, update_tool_call
from acp.schema import (
    AllowedOutcome,
    ClientCapabilities,
    FileEditToolCallContent,
    PermissionOption,
    ToolCallLocation,
    ToolCallUpdate,
    ToolKind,
)

READ, WRITE = "read_file", "write_file"
_KINDS: dict[str, ToolKind] = {READ: "read", WRITE: "edit"}
_OPTIONS = [
    PermissionOption(option_id="once", name="Allow", kind="allow_once"),
    PermissionOption(option_id="always", name="Always allow in this session", kind="allow_always"),
    PermissionOption(option_id="no", name="Reject", kind="reject_once"),
]


def shown(name: str, arguments: dict[str, Any], cwd: str) -> tuple[str, ToolKind, list[ToolCallLocation]]:
    """What an editor shows of a call: its title, its kind, the file that it is about."""
    path, line = arguments.get("path"), arguments.get("line")
    if name not in _KINDS or not isinstance(path, str):
        return name, _KINDS.get(name, "other"), []
    location = ToolCallLocation(path=_absolute(path, cwd), line=line if isinstance(line, int) else None)
    return f"{'Read' if name == READ else 'Write'} {path}", _KINDS[name], [location]


class Hands:
    """What one editor lends in one session. `tools` are their definitions, as a chat takes them."""

    def __init__(self, editor: Client, capabilities: ClientCapabilities | None, session_id: str, cwd: str) -> None:
        self._editor = editor
        self._session_id = session_id
        self._cwd = cwd
        self._allowed: set[tuple[str, bool]] = set()
        files = capabilities.fs if capabilities else None
        self._reads = bool(files and files.read_text_file)
        writes = bool(files and files.write_text_file)
        self.tools = [*([self._reading()] if self._reads else []), *([self._writing()] if writes else [])]

    async def do(self, call: dict[str, Any], call_id: str) -> tuple[str, bool]:
        """Does what a call asks for, while the editor shows it: the result, and whether it is an error."""
        try:
            return await self._done(call, call_id), False
        except (_NotDoneError, RequestError) as error:
            text = str(error)
            if isinstance(error, RequestError) and error.data:
                text += f": {error.data}"
        await self._show(call_id, status="failed", content=[tool_content(text_block(text))])
        return text, True

    async def _done(self, call: dict[str, Any], call_id: str) -> str:
        if not any(tool["name"] == call["name"] for tool in self.tools):
            raise _NotDoneError(f"There is no tool {call['name']!r}.")
        if call["parse_error"]:
            raise _NotDoneError(call["parse_error"])
        return await (self._read if call["name"] == READ else self._write)(call_id, call["arguments"])

    async def _read(self, call_id: str, arguments: dict[str, Any]) -> str:
        path = _absolute(arguments["path"], self._cwd)
        if not self._is_inside(path):
            await self._ask_for_leave(READ, call_id, arguments, [])
        await self._show(call_id, status="in_progress")
        part = {name: arguments[name] for name in ("line", "limit") if name in arguments}
        text = (await self._editor.read_text_file(path=path, session_id=self._session_id, **part)).content
        await self._show(call_id, status="completed", content=[tool_content(text_block(text))])
        return text

    async def _write(self, call_id: str, arguments: dict[str, Any]) -> str:
        path, text = _absolute(arguments["path"], self._cwd), arguments["content"]
        diff = [tool_diff_content(path, text, await self._old_text(path))]
        await self._show(call_id, content=diff)
        await self._ask_for_leave(WRITE, call_id, arguments, diff)
        await self._show(call_id, status="in_progress")
        await self._editor.write_text_file(content=text, path=path, session_id=self._session_id)
        await self._show(call_id, status="completed", content=diff)
        return f"Written: {path}"

    async def _old_text(self, path: str) -> str | None:
        """What a diff begins with; None for a file that is not there yet, or that the editor does not read to us."""
        if not self._reads or not self._is_inside(path):
            return None
        try:
            return (await self._editor.read_text_file(path=path, session_id=self._session_id)).content
        except RequestError:
            return None

    async def _ask_for_leave(
        self, name: str, call_id: str, arguments: dict[str, Any], diff: list[FileEditToolCallContent]
    ) -> None:
        title, kind, locations = shown(name, arguments, self._cwd)
        is_inside = self._is_inside(locations[0].path)
        if (name, is_inside) in self._allowed:
            return
        asked = ToolCallUpdate(
            tool_call_id=call_id,
            title=title if is_inside else f"{title} (outside {self._cwd})",
            kind=kind,
            status="pending",
            locations=locations,
            raw_input=arguments,
            content=[*diff],
        )
        answer = await self._editor.request_permission(session_id=self._session_id, tool_call=asked, options=_OPTIONS)
        chosen = answer.outcome.option_id if isinstance(answer.outcome, AllowedOutcome) else "no"
        if chosen == "always":
            self._allowed.add((name, is_inside))
        elif chosen != "once":
            raise _NotDoneError("The user did not allow this.")

    async def _show(self, call_id: str, **news: Any) -> None:
        await self._editor.session_update(session_id=self._session_id, update=update_tool_call(call_id, **news))

    def _is_inside(self, path: str) -> bool:
        return os.path.commonpath([path, self._cwd]) == self._cwd

    def _reading(self) -> dict[str, Any]:
        whole = {"type": "integer", "minimum": 1}
        return _tool(
            READ,
            "Reads a text file of the user's, as it stands in their editor.",
            self._path_property(),
            ["path"],
            line=whole | {"description": "The line to begin with; the first is 1."},
            limit=whole | {"description": "How many lines to read."},
        )

    def _writing(self) -> dict[str, Any]:
        return _tool(
            WRITE,
            "Writes a text file of the user's, whole; one that is not there is made. The user is asked for leave.",
            self._path_property(),
            ["path", "content"],
            content={"type": "string", "description": "The whole new text of the file."},
        )

    def _path_property(self) -> dict[str, Any]:
        return {"type": "string", "description": f"Absolute, or relative to the project's directory {self._cwd}"}


class _NotDoneError(Exception):
    """The message is what the model is told."""


def _tool(name: str, description: str, path: dict[str, Any], required: list[str], **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"path": path} | properties, "required": required}
    return {"name": name, "description": description, "parameters": parameters}


def _absolute(path: str, cwd: str) -> str:
    return os.path.normpath(os.path.join(cwd, path))  # noqa: PTH118 pathlib has no normpath: nothing here is on our disk

"""Fields that take files from uploads only: no path on this server and no web address, whatever an API call says."""

from pathlib import Path, PurePosixPath
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from .unpacking import Upload

_NOT_UPLOADED = "Upload the photograph: files on the server and web addresses are not read."


def take_uploads_only(field: gr.components.Component) -> None:
    """Let a field refuse what was not uploaded, and not fetch web addresses, for which no limit of size holds.

    Gradio checks the folder of a file only where the call marks it as an upload, and downloads addresses.
    """

    async def uploaded_path(path: str | Path | None) -> str | None:
        return None if path is None else str(_uploaded(path))

    field.async_move_resource_to_block_cache = uploaded_path  # type: ignore[assignment, method-assign]


def uploaded_photo_field(label: str, *, elem_id: str) -> gr.Image:
    """An image field that hands over the path of the upload as it came.

    Gradio's own preprocessing opens the file, and fails on a broken one or a bomb before our sentence can be said.
    """
    field = gr.Image(
        label=label, type="filepath", image_mode=None, sources=["upload", "clipboard"], height=400, elem_id=elem_id
    )

    def preprocess(payload: Any) -> str | None:
        return str(_uploaded(payload.path or "")) if payload else None

    field.preprocess = preprocess  # type: ignore[method-assign]
    take_uploads_only(field)
    return field


def uploaded_files_field(label: str, *, file_types: list[str], elem_id: str) -> gr.File:
    """A field for any number of files, which hands over a list of `Upload`; None without any.

    Gradio takes signs out of the names of files, by which a table could not name them any more.
    """
    field = gr.File(label=label, file_count="multiple", file_types=file_types, height=190, elem_id=elem_id)

    def preprocess(payload: Any) -> list[Upload] | None:
        return [_upload(file) for file in payload] if payload else None

    field.preprocess = preprocess  # type: ignore[assignment, method-assign]
    take_uploads_only(field)
    return field


def _upload(file: Any) -> Upload:
    path = _uploaded(file.path or "")
    # Whatever the client says it is: a name without folders, or else Gradio's own.
    name = PurePosixPath((file.orig_name or "").replace("\\", "/")).name
    is_name = name not in ("", "..") and name.isprintable() and len(name.encode(errors="replace")) <= 255
    return Upload(path, name if is_name else path.name)


def _uploaded(path: str | Path) -> Path:
    """The file behind a path, which must be a regular one in Gradio's upload folder, links followed.

    The answer to everything else is the same, so that it does not tell which files there are.

    Raises:
        gr.Error: for anything else.
    """
    file = Path(path).resolve()
    if not file.is_relative_to(Path(get_upload_folder()).resolve()) or not file.is_file():
        raise gr.Error(_NOT_UPLOADED, print_exception=False)
    return file


__all__ = ["take_uploads_only", "uploaded_files_field", "uploaded_photo_field"]

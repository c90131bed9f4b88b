"""What gzip packed, for every table and list: by its first bytes, whatever its name, and never without end."""

import gzip
import io
import zlib

from cxrmine.errors import CxrError

MAGIC = b"\x1f\x8b"
MOST_UNPACKED = 2**29  # bytes; a table of a million rows and a hundred columns of labels takes fewer


def unpacked(content: bytes, where: object) -> bytes:
    """The content as it is, or as it was before it was gzipped; `where`: for messages."""
    if not content.startswith(MAGIC):
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
            content = packed.read(MOST_UNPACKED + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise CxrError(f"{where} is a damaged or cut off gzip file.", "Get the file again.") from None
    if len(content) > MOST_UNPACKED:
        most = f"{MOST_UNPACKED >> 20} MiB"
        raise CxrError(f"{where} unpacks to more than {most}.", "Unpack it, if it is what it should be.")
    return content

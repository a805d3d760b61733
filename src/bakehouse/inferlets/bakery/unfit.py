"""Modules that cannot do their work in the sandbox, and why."""

from __future__ import annotations

_NETWORK = (
    "the sandbox has no network; talk to the client with inferlet.session, and to tools with inferlet.mcp",
    """
    socket ssl _socket socketserver selectors select
    http.client http.server urllib.request ftplib smtplib imaplib poplib nntplib xmlrpc wsgiref
    requests httpx httpcore aiohttp urllib3 websockets websocket grpc paramiko fastapi starlette uvicorn flask django
    openai anthropic boto3 botocore huggingface_hub
    asyncio.start_server asyncio.open_connection inferlet.client inferlet.remote
    """,
)
_PROCESSES = (
    "the sandbox starts no processes; start another program with inferlet.runtime.spawn",
    """
    subprocess multiprocessing pty pexpect psutil
    concurrent.futures.process concurrent.futures.ProcessPoolExecutor
    asyncio.subprocess asyncio.create_subprocess_exec asyncio.create_subprocess_shell
    """,
)
_THREADS = (
    "the sandbox has one thread; run things at once with inferlet.aio and asyncio.gather",
    """
    threading _thread concurrent.futures.thread concurrent.futures.ThreadPoolExecutor concurrent.interpreters
    joblib trio anyio gevent eventlet greenlet
    """,
)
_NATIVE = (
    "the sandbox runs no native code, only Python",
    """
    ctypes _ctypes cffi numpy pandas scipy sklearn matplotlib PIL cv2 torch torchvision tensorflow jax jaxlib
    transformers tokenizers safetensors sentencepiece tiktoken lxml orjson ujson msgspec pydantic pydantic_core
    cryptography nacl bcrypt regex polars pyarrow numba cython
    """,
)
_DATABASES = (
    "the sandbox has no databases; keep data with the client, with inferlet.session",
    "sqlite3 _sqlite3 dbm psycopg psycopg2 asyncpg pymysql MySQLdb sqlalchemy redis pymongo",
)
_FILES = (
    "the sandbox has no files; exchange them with the client by session.send_file and session.receive_file",
    "tempfile shutil fileinput mmap fcntl watchdog",
)
_TERMINAL = (
    "the sandbox has neither terminal nor windows; print, or send to the client with inferlet.session",
    "tkinter turtle curses readline termios tty getpass cmd code pdb",
)
_SYSTEM = (
    "the sandbox has no operating system of this kind",
    "resource pwd grp syslog signal faulthandler winreg msvcrt _winapi venv ensurepip pip setuptools",
)
_GONE = (
    "the sandbox's Python 3.14 does not have it any more",
    """
    aifc asynchat asyncore audioop cgi cgitb chunk crypt distutils imghdr imp mailcap msilib nis ossaudiodev pipes
    smtpd sndhdr spwd sunau telnetlib uu xdrlib lib2to3
    """,
)

_REASONS = {
    name: reason
    for reason, names in (
        *(_NETWORK, _PROCESSES, _THREADS, _NATIVE, _DATABASES),
        *(_FILES, _TERMINAL, _SYSTEM, _GONE),
    )
    for name in names.split()
}


def unfit(name: str) -> str | None:
    """Why the module (or a name in it) *name*, dotted, cannot work in the sandbox; None where it can."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        reason = _REASONS.get(".".join(parts[:end]))
        if reason is not None:
            return reason
    return None

"""A TCP proxy on this machine that fails as networks do: connections are cut, or open and silent."""

import contextlib
import random
import socket
import threading
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

HOST = "127.0.0.1"
CHUNK_BYTES = 65536


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on, from 15000 to 31999."""
    # Not the kernel's choice, which is from the ports of outgoing connections (32768 and up in Linux): while
    # the server there is down, one of those could take it, or a client that tries again connect to itself.
    for port in random.SystemRandom().sample(range(15000, 32000), 100):
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind((HOST, port))
            return port
    raise RuntimeError(f"100 ports of {HOST} from 15000 to 31999 are all taken; see `ss --tcp --listening`")


class TcpProxy:
    """Forward connections to a port of 127.0.0.1, until told otherwise.

    It listens from its creation to `close()`, or the end of its `with` block. What `cut()`, `stall()` and
    `restore()` say holds when they return. They are to be called from one thread at a time.

    A stalled connection is silent to the program at the other end, not to its kernel: bytes and keep-alive
    probes are still acknowledged, so the timeouts of TCP itself (libpq's `keepalives_*`, `tcp_user_timeout`)
    never pass.

    Attributes:
        target_port: Where connections lead. While nobody listens there, the proxy closes what it accepted.
        port: Where the proxy listens, on 127.0.0.1; it stays the same for the proxy's life.
    """

    def __init__(self, target_port: int) -> None:
        """Listen on a free port, for connections to `target_port` of 127.0.0.1."""
        self.target_port = target_port
        self.port = free_port()
        self._state: Literal["forwarding", "stalled", "cut"] = "cut"
        self._changed = threading.Condition()
        self._sockets: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._acceptor: threading.Thread | None = None
        self.restore()

    def __enter__(self) -> Self:
        """The proxy, to be closed at the block's end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the proxy."""
        self.close()

    def url(self, url: str) -> str:
        """The same URL by way of the proxy.

        Raises:
            ValueError: If the URL doesn't lead to `target_port` of 127.0.0.1.
        """
        parts = urlsplit(url)
        if (parts.hostname, parts.port) != (HOST, self.target_port):
            raise ValueError(f"{url!r} is not for the proxy's target; give one of {HOST}:{self.target_port}")
        credentials, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{credentials}{at}{HOST}:{self.port}").geturl()

    def restore(self) -> None:
        """Forward again; stalled connections go on with what was sent meanwhile, as after an outage."""
        self._become("forwarding")

    def stall(self) -> None:
        """Keep connections and accept new ones, but forward nothing, not even that one side has closed."""
        self._become("stalled")

    def cut(self) -> None:
        """Close all connections, drop what was on its way, and refuse new ones."""
        with self._changed:
            self._state = "cut"
            self._changed.notify_all()
            for end in self._sockets:
                # Wakes the thread that reads or writes there; closing is that thread's part.
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        if self._acceptor is not None:
            # Closing a listening socket doesn't wake who waits for it, a connection does.
            with contextlib.suppress(OSError):
                socket.create_connection((HOST, self.port)).close()
            self._acceptor.join()
            self._acceptor = None
        for thread in list(self._threads):
            thread.join()

    def close(self) -> None:
        """Cut for good; the proxy's threads have ended then."""
        self.cut()

    def _become(self, state: Literal["forwarding", "stalled"]) -> None:
        listener = None if self._acceptor else socket.create_server((HOST, self.port), backlog=128)
        with self._changed:
            self._state = state
            self._changed.notify_all()
        if listener is not None:
            self._acceptor = threading.Thread(target=self._accept, args=(listener,), daemon=True)
            self._acceptor.start()

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                client, _ = listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
                if not self._add(client, thread):
                    client.close()
                    return
                thread.start()

    def _add(self, end: socket.socket, thread: threading.Thread | None = None) -> bool:
        """Take note of what `cut()` has to end; False where it has been called already."""
        with self._changed:
            if self._state == "cut":
                return False
            self._sockets.add(end)
            if thread is not None:
                self._threads.add(thread)
            return True

    def _serve(self, client: socket.socket) -> None:
        """Forward one connection both ways until both sides have closed it."""
        ends = [client]
        try:
            if self._flows():
                server = socket.create_connection((HOST, self.target_port))
                ends.append(server)
                if self._add(server):
                    back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
                    back.start()
                    self._pump(client, server)
                    back.join()
        except ConnectionRefusedError:
            pass  # Nobody listens at the target: the client sees its connection closed.
        finally:
            with self._changed:
                for end in ends:
                    end.close()
                self._sockets.difference_update(ends)
                self._threads.discard(threading.current_thread())

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        """Forward one direction until its source closes it, or both are broken."""
        with contextlib.suppress(OSError):
            while self._flows():
                data = source.recv(CHUNK_BYTES)
                # It may have been stalled or cut while this waited for data.
                if not self._flows():
                    break
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _flows(self) -> bool:
        """Wait while stalled; True for bytes to go on, False for the connection to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._state != "stalled")
            return self._state == "forwarding"

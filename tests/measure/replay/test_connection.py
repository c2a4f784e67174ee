import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.measure.replay.connection import BrokenReplyError, Connection, Exchange, cut_reply


def reply(body, status=200, head=b""):
    return b"HTTP/1.1 %d OK\r\n%sContent-Length: %d\r\n\r\n%s" % (status, head, len(body), body)


@given(body=st.binary(max_size=60), status=st.integers(100, 599), cut=st.integers(0, 200))
def test_a_reply_is_whole_at_its_last_byte_and_not_before(body, status, cut):
    whole = reply(body, status, b"x-other: y\r\n")
    assert cut_reply(whole) == (status, body, False)
    if cut < len(whole):
        assert cut_reply(whole[:cut]) is None


def test_header_names_are_read_in_any_case_and_close_is_noticed():
    assert cut_reply(b"HTTP/1.1 503 No\r\nCONTENT-LENGTH:2\r\nConnection: Close\r\n\r\nno") == (503, b"no", True)


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"SSH-2.0\r\n\r\n"])
def test_what_is_not_a_reply_with_a_length_is_refused(data):
    with pytest.raises(BrokenReplyError, match=r"not HTTP/1.1 with a Content-Length"):
        cut_reply(data)


class Notes:
    """An owner that writes down what it hears."""

    def __init__(self):
        self.heard = []

    def opened(self, connection):
        self.heard.append("opened")

    def freed(self, connection):
        self.heard.append("freed")

    def lost(self, connection, exchange, reason):
        self.heard.append(("lost", exchange, reason))


@given(st.lists(st.integers(1, 9), max_size=40))
def test_replies_may_come_in_any_pieces(sizes):
    notes, settled = Notes(), []
    connection = Connection(notes)
    connection.is_open = True
    data = reply(b"a body of some length")
    exchange = Exchange(b"", on_settled=lambda: settled.append(1))
    connection.send(exchange, b"")
    start = 0
    for size in sizes:
        if start < len(data):
            connection.data_received(data[start : start + size])
            start += size
    if start < len(data):
        connection.data_received(data[start:])
    assert (exchange.status, exchange.reply, settled) == (200, b"a body of some length", [1])
    assert notes.heard == ["freed"]


def test_an_exchange_whose_connection_is_lost_is_handed_back_once():
    notes = Notes()
    connection = Connection(notes)
    connection.is_open = True
    exchange = Exchange(b"", on_settled=lambda: None)
    connection.send(exchange, b"")
    connection.connection_lost(ConnectionResetError())
    connection.connection_lost(None)
    assert notes.heard == [("lost", exchange, "ConnectionResetError")]
    assert not exchange.is_settled


def test_a_reply_that_nobody_asked_for_ends_the_connection():
    notes = Notes()
    connection = Connection(notes)
    connection.is_open = True
    connection.data_received(reply(b""))
    assert notes.heard == [("lost", None, "a reply that nobody asked for")]
    assert not connection.is_open

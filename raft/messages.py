"""The machine's messages (pysyncobj's dictionaries and ours) to and from protobuf. Pure; nothing is ever pickled."""

from collections.abc import Callable
from typing import Any

from penstock.internal.v1 import raft_pb2
from penstock.raft.journal import Entry
from penstock.raft.outbox import Message
from penstock.raft.snapshot import Chunk


class MalformedMessageError(Exception):
    """The peer sent something that no version of this protocol sends."""


def _vote_fields(message: Message) -> dict[str, Any]:
    place = {"last_index": message["last_log_index"], "last_term": message["last_log_term"]}
    return place | {"journal_id": message["journal_id"]}


def _encode_vote(message: Message) -> dict[str, Any]:
    return {"request_vote": raft_pb2.RequestVote(**_vote_fields(message))}


def _encode_pre_vote(message: Message) -> dict[str, Any]:
    return {"request_pre_vote": raft_pb2.RequestPreVote(**_vote_fields(message))}


def _encode_append(message: Message) -> dict[str, Any]:
    record = raft_pb2.AppendEntries(
        previous_index=message["prevLogIdx"],
        previous_term=message["prevLogTerm"],
        commit_index=message["commit_index"],
        entries=[raft_pb2.RaftEntry(term=entry[2], command=entry[0]) for entry in message["entries"]],
    )
    return {"append_entries": record}


def _encode_chunk(message: Message) -> dict[str, Any]:
    chunk: Chunk = message["chunk"]
    record = raft_pb2.SnapshotChunk(
        snapshot_index=chunk.index,
        snapshot_term=chunk.term,
        size=chunk.size,
        crc=chunk.crc,
        position=chunk.position,
        data=chunk.data,
        data_crc=chunk.data_crc,
        sequence=chunk.sequence,
    )
    return {"snapshot_chunk": record}


def _encode_progress(message: Message) -> dict[str, Any]:
    record = raft_pb2.SnapshotProgress(
        snapshot_index=message["index"], received=message["received"], sequence=message["sequence"]
    )
    return {"snapshot_progress": record}


def _encode_append_answer(message: Message) -> dict[str, Any]:
    # A refusal always says where to go on, except to a leader whose term is over: that answer has no index.
    return {"append_answer": raft_pb2.AppendAnswer(success=message["success"], next_index=message["next_node_idx"])}


def _encode_pre_vote_answer(message: Message) -> dict[str, Any]:
    record = raft_pb2.PreVoteAnswer(granted=message["granted"], asked_term=message["asked_term"])
    return {"pre_vote_answer": record}


def _encode_forward(message: Message) -> dict[str, Any]:
    return {"forward": raft_pb2.Forward(request_id=message["request_id"], command=message["command"])}


def _encode_forward_answer(message: Message) -> dict[str, Any]:
    record = raft_pb2.ForwardAnswer(
        request_id=message["request_id"],
        error=message.get("error", 0),
        index=message.get("log_idx", 0),
        entry_term=message.get("log_term", 0),
    )
    return {"forward_answer": record}


_ENCODERS: dict[str, Callable[[Message], dict[str, Any]]] = {
    "request_vote": _encode_vote,
    "response_vote": lambda _: {"vote_granted": raft_pb2.VoteGranted()},
    "request_pre_vote": _encode_pre_vote,
    "pre_vote_answer": _encode_pre_vote_answer,
    "timeout_now": lambda _: {"timeout_now": raft_pb2.TimeoutNow()},
    "append_entries": _encode_append,
    "snapshot_chunk": _encode_chunk,
    "next_node_idx": _encode_append_answer,
    "snapshot_progress": _encode_progress,
    "apply_command": _encode_forward,
    "apply_command_response": _encode_forward_answer,
}


def encode(message: Message) -> raft_pb2.RaftMessage:
    """Return the message's form on the wire."""
    return raft_pb2.RaftMessage(term=message.get("term", 0), **_ENCODERS[message["type"]](message))


def _decode_append(record: Any) -> Message:
    start = record.previous_index + 1
    entries = [Entry(entry.command, start + at, entry.term) for at, entry in enumerate(record.entries)]
    place = {"prevLogIdx": record.previous_index, "prevLogTerm": record.previous_term}
    return {"type": "append_entries", "commit_index": record.commit_index, "entries": entries, **place}


def _decode_chunk(record: Any) -> Message:
    place = (record.snapshot_index, record.snapshot_term, record.size, record.crc, record.position)
    return {"type": "snapshot_chunk", "chunk": Chunk(*place, record.data, record.data_crc, record.sequence)}


def _decode_append_answer(record: Any) -> Message:
    reset = not record.success and record.next_index > 0
    answer = {"next_node_idx": record.next_index, "success": record.success, "reset": reset}
    return {"type": "next_node_idx", **answer}


def _decode_progress(record: Any) -> Message:
    place = {"index": record.snapshot_index, "received": record.received, "sequence": record.sequence}
    return {"type": "snapshot_progress", **place}


def _decode_forward_answer(record: Any) -> Message:
    answer: Message = {"type": "apply_command_response", "request_id": record.request_id}
    if record.error:
        return answer | {"error": int(record.error)}
    return answer | {"log_idx": record.index, "log_term": record.entry_term}


def _asks_for_vote(kind: str) -> Callable[[Any], Message]:
    return lambda record: {
        "type": kind,
        "last_log_index": record.last_index,
        "last_log_term": record.last_term,
        "journal_id": record.journal_id,
    }


_DECODERS: dict[str, Callable[[Any], Message]] = {
    "request_vote": _asks_for_vote("request_vote"),
    "vote_granted": lambda _: {"type": "response_vote"},
    "request_pre_vote": _asks_for_vote("request_pre_vote"),
    "pre_vote_answer": lambda record: {
        "type": "pre_vote_answer",
        "granted": record.granted,
        "asked_term": record.asked_term,
    },
    "timeout_now": lambda _: {"type": "timeout_now"},
    "append_entries": _decode_append,
    "snapshot_chunk": _decode_chunk,
    "append_answer": _decode_append_answer,
    "snapshot_progress": _decode_progress,
    "forward": lambda record: {
        "type": "apply_command",
        "request_id": record.request_id,
        "command": record.command,
    },
    "forward_answer": _decode_forward_answer,
}


def decode(record: raft_pb2.RaftMessage) -> Message:
    """Return the machine's form of a message. MalformedMessageError for a kind that this version does not know."""
    kind = record.WhichOneof("kind")
    if kind is None:
        raise MalformedMessageError("a consensus message of no known kind; the peer runs another version")
    message = _DECODERS[kind](getattr(record, kind))
    message["term"] = record.term
    return message

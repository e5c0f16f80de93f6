"""The hand-written half of the wire contract: batch codec, compression, key hashing, error reasons, limits.

Pure functions over bytes, shared by the client and the server so that neither can drift from docs/protocol.md.
"""

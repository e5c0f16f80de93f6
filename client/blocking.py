"""The blocking face: `Producer`, `Consumer` and `Admin` of `penstock.client` with the same names and no async.

`Producer.send` gives a concurrent.futures.Future; callbacks run on the background thread. (Signatures follow the
asyncio classes; the body follows.)
"""

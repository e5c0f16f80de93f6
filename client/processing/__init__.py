"""`Consumer.process`: handlers run side by side, in order per key, and what is done is committed."""

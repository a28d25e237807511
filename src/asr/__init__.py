"""Speech in, words out: the client library of riva-gateway."""

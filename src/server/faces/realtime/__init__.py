"""The realtime dialects of `/v1/realtime`: a NIM's, and OpenAI's of today and of the beta.

`dialect` tells them apart when a client connects, `minting` and `http` make sessions beforehand, `nim` and `openai`
are the conversations, and the small rooms `setup`, `audio` and `items` are what they stand on.
"""

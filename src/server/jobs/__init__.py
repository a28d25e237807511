"""Durable transcription jobs: a wing of its own, because it alone has memory across requests.

`model` is what a job is, `store` keeps it, `durable` is the workflow engine (DBOS) behind it, `work` does one job,
`keeper` watches those that run, `webhook` and `delivery` tell others when one is over, `service` is what faces ask.
"""

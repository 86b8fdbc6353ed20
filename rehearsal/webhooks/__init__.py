"""The rehearsal's webhooks: recorded payloads, the backlog of dead letters, and live traffic."""

"""The board: releases, queue and alerts of environments over HTTP, for people, programs and Prometheus. It reads."""

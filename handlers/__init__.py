"""The core: everything that can be right or wrong about a release, in plain asyncio, without Prefect."""

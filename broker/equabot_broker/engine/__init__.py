"""The moving parts: asyncio, no protocol and no format."""

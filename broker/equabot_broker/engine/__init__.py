"""What happens over time: asyncio, no protocol and no format."""

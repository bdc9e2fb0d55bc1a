"""Pure data: published formats as types. No IO, no asyncio."""

"""Medical instruction synthesis: seeds, prompts, client, parser, filters and publishing."""

"""OpenAI's API over the mesh: requests become wishes and tasks, events become replies and chunks."""

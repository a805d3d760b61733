"""What the platform does: one class per noun, one method per use case. The only room that calls the store."""

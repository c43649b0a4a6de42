"""Running code nobody has read: isolated, limited, and killed as a whole at the deadline."""

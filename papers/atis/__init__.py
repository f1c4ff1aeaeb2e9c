"""Slot tagging of spoken queries by recurrent networks, after CNTK's language-understanding example."""

"""The processes of a run: who they are, and how the model is spread over them."""

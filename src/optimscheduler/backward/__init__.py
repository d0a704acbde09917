"""From losses to gradients: which loss, in which precision, and nobody else's gradients."""

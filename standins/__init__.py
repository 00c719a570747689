"""What plays where there is no model. No result of theirs is a result of the method."""

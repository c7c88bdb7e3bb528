"""The one exception for a user's mistake."""


class UserError(Exception):
    """A mistake that the user can mend: one readable message, no traceback.

    The message names the place (slot, flag, file and line, image), the value, what was expected and what to do next.
    `seg_main` prints it and exits with status 2; anything else that is raised is a bug of ours.
    """

// A line that is empty as long as page and kernel hear each other.

export default { render: (context) => follow(context, () => null, true) };

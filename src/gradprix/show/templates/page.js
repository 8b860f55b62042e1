for (const button of document.querySelectorAll(".code button")) button.onclick = () => {
  navigator.clipboard.writeText(button.previousElementSibling.textContent).then(() => button.textContent = "Copied");
};
